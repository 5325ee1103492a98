"""Ways in. An intake knows nothing but ``Publisher.submit``."""
