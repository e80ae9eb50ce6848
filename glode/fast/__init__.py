"""Speed alone: packed rows, cheap dropout, a processor switch. Nobody has to read this room first; without it, everything is
computed the same and takes longer."""
