"""The web server: sockets, HTTP framing, and which thread answers; it knows no route."""
