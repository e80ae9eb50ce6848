"""What makes a step cheaper and changes nothing else; nobody has to read it first."""
