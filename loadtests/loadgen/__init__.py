"""Load generator: an asyncio client for streamed chats, one outcome type, one summary."""
