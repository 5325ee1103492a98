"""The only room that knows pika: link, lanes, frames and topology of one broker."""
