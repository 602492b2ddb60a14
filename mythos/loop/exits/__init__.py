"""After which loop a token exits: distributions over loops, the gate that learns one, drawn exits, exit rules."""
