"""Pictures in and out, their colours, and label pictures."""
