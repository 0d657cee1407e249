"""What the service knows and does: tasks, money, images, uploads and the limits of requests."""
