"""HTTP: what goes over the wire <-> the outcomes of floor 0, foreign errors included."""
