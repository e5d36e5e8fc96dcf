"""What goes by time: messages by age, channels by inactivity."""
