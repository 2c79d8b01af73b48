"""Tables as files have them: chunks of bytes in, rows by column, and chunks of bytes out; a module for each format."""
