"""Code that `make proto` writes from proto/elsa/v1/elsa.proto; never edited by hand."""
