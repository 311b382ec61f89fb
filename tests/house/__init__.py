"""What holds the house together: import floors, exports, style, documentation, packaging."""
