"""From a package to a compiled model (``.mlmodelc``), as Core ML's own compiler writes it."""
