"""A placeholder for your own worker in example.yaml. docs/worker-protocol.md describes the protocol."""

raise SystemExit("this is not a worker; write your own with docs/worker-protocol.md")
