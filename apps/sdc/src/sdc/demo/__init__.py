"""The demo checkpoint that ships with sdc: its captions, its judge, its contact sheet."""
