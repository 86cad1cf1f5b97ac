"""Who proposes the candidates of an episode."""
