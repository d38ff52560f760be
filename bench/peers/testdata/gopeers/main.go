// Command gopeers runs the bench's work in other Go libraries for queues: "gopeers watermill",
// "gopeers river", and "gopeers river COUNT SIZE RATE" to send. It is a module of its own, so that
// the bench does not need these libraries; "go run ./bench peers" builds it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gopeers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "versions":
		return printVersions()
	case len(args) == 1 && args[0] == "watermill":
		return runWatermill(ctx)
	case len(args) == 1 && args[0] == "river":
		return runRiver(ctx)
	case len(args) == 4 && args[0] == "river":
		var numbers [3]int
		for i, text := range args[1:] {
			var err error
			if numbers[i], err = strconv.Atoi(text); err != nil {
				return err
			}
		}
		return sendRiver(ctx, numbers[0], numbers[1], numbers[2])
	}
	return fmt.Errorf("unknown arguments %q", args)
}

// printVersions prints a library and its version a line.
func printVersions() error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return fmt.Errorf("the program has no build information")
	}
	for _, m := range info.Deps {
		for _, name := range []string{"ThreeDotsLabs/watermill", "ThreeDotsLabs/watermill-nats/v2", "riverqueue/river", "jackc/pgx/v5"} {
			if strings.TrimPrefix(m.Path, "github.com/") == name {
				fmt.Println(name, m.Version)
			}
		}
	}
	return nil
}

// number is a number that the driver set.
func number(name string) (int, error) {
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}
