"""What `make run` and `make test` need on a bare machine: packages, servers, and one Ctrl-C for all of it."""
