// Command drover runs functions against queues; see the README.
package main

import "github.com/drover-run/drover/daemon/cli"

func main() { cli.Main() }
