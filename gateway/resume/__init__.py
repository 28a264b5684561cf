"""Resuming a broken stream on another replica.

`stream_log` and `transcript` hold what the client was sent, `completion_params` and `continuation`
make the request for the rest, `splice` turns its response into the rest of the stream, and
`resumption` decides which of these is sound.
"""
