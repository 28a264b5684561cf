"""What routers do for stored responses and chats: resolve references, and keep answers."""
