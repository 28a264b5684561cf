"""What routers do for stored responses and chats: resolve what a request refers to, and keep answers."""
