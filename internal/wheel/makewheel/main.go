// Command makewheel writes a wheel with one program, or with the files of a directory. The Makefile
// calls it.
//
//	go run ./internal/wheel/makewheel -name drover-cli -version v1.2.0 -tag py3-none-macosx_11_0_arm64 -script drover=bin/drover -summary '...' -out dist
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/drover-run/drover/internal/wheel"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "makewheel:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var w wheel.Wheel
	flags := flag.NewFlagSet("makewheel", flag.ContinueOnError)
	flags.StringVar(&w.Name, "name", "", "the name of the distribution")
	flags.StringVar(&w.Tag, "tag", "py3-none-any", "the compatibility tag, as in PEP 425")
	flags.StringVar(&w.Summary, "summary", "", "a one-line summary")
	flags.StringVar(&w.RequiresPython, "python", ">=3.9", "the required versions of Python")
	version := flags.String("version", "", "a Go version, such as v1.2.0, which is converted to a Python version")
	description := flags.String("description", "", "a Markdown file")
	out := flags.String("out", "dist", "the directory to write to")
	files := flags.String("files", "", "a directory whose contents go to site-packages")
	flags.Func("script", "NAME=FILE: a command and its program; may be repeated", func(value string) error {
		name, path, found := strings.Cut(value, "=")
		if !found {
			return errors.New("want NAME=FILE")
		}
		content, err := os.ReadFile(path)
		w.Scripts = append(w.Scripts, wheel.File{Path: name, Content: content})
		return err
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	w.Version = wheel.Version(*version)
	if *description != "" {
		text, err := os.ReadFile(*description)
		if err != nil {
			return fmt.Errorf("the description: %w", err)
		}
		w.Description = string(text)
	}
	if *files != "" {
		if err := addFiles(&w, *files); err != nil {
			return fmt.Errorf("the files: %w", err)
		}
	}
	return write(&w, *out)
}

func addFiles(w *wheel.Wheel, dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path) //nolint:gosec // the caller's own directory, which nobody else changes
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(dir, path)
		w.Files = append(w.Files, wheel.File{Path: filepath.ToSlash(inside), Content: content})
		return err
	})
}

func write(w *wheel.Wheel, dir string) error {
	var content bytes.Buffer
	if err := w.Write(&content); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // others may read a build
		return err
	}
	path := filepath.Join(dir, w.FileName())
	if err := os.WriteFile(path, content.Bytes(), 0o644); err != nil { //nolint:gosec // likewise
		return err
	}
	fmt.Println(path)
	return nil
}
