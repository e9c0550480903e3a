"""The operator as each framework wants it. One thin file per framework."""
