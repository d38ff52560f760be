// Command makerelease builds the files of a release, for the Makefile:
//
//	go run ./internal/release/makerelease -out dist/release
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/drover-run/drover/internal/release"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg := release.Config{Log: os.Stderr}
	flag.StringVar(&cfg.Source, "source", ".", "the root of the source tree")
	flag.StringVar(&cfg.Out, "out", "dist/release", "the directory to write to")
	flag.StringVar(&cfg.Only, "only", "", "build only for this platform, such as linux/amd64")
	flag.StringVar(&cfg.NFPM, "nfpm", "", "the program nfpm; without it there are no Debian packages")
	flag.StringVar(&cfg.SBOM, "sbom", "", "the program cyclonedx-gomod; without it there are no bills of materials")
	flag.BoolVar(&cfg.Dirty, "dirty", false, "build even if there are uncommitted changes")
	flag.Parse()
	names, err := release.Build(ctx, cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, "makerelease:", err)
		os.Exit(1) //nolint:gocritic // the signals need no restoring
	}
	for _, name := range names {
		info, err := os.Stat(filepath.Join(cfg.Out, name))
		if err != nil {
			fmt.Fprintln(os.Stderr, "makerelease:", err)
			os.Exit(1)
		}
		fmt.Printf("%10d  %s\n", info.Size(), filepath.Join(cfg.Out, name))
	}
}
