"""Speed alone: packed rows, cheap dropout, a processor switch. Nobody has to read this room first: without it,
training does the same and takes longer."""
