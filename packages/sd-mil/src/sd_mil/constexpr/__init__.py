"""The weight codecs of ML Programs: how compressed constants are packed, decoded and encoded."""
