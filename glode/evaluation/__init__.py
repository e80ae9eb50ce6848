"""Found entities against a user's gold file: scores, kinds of errors, intervals, tests, pages."""
