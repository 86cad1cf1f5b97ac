"""Controllers: they propose the candidates of an episode."""
