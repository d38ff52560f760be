package functionapps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/drover-run/drover/configs"
	"github.com/drover-run/drover/configs/functionapp"
	"github.com/drover-run/drover/daemon/cli/exit"
	"github.com/drover-run/drover/daemon/cli/term"
)

// WriteBeside writes a drover.yaml into the directory of a function app, with the settings for which
// Azure has none, all commented out. It never replaces a file. Like Check it imports the app's code. A
// function with an error is printed to Err, and does not prevent the file.
func (c Checker) WriteBeside(ctx context.Context, dir string) (err error) {
	found, isApp := functionapp.Find(dir)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() || !isApp || found != dir {
		return fmt.Errorf("nothing was written: %s is not a directory with a host.json, which an Azure Functions app has", dir)
	}
	file := filepath.Join(dir, "drover.yaml")
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("nothing was written: %s exists already; move it away, or add settings to it (docs/azure-functions.md)", file)
	}
	var report bytes.Buffer
	checker := c
	checker.Out = &report
	t, err := checker.checkApp(ctx, dir)
	if err != nil && !errors.Is(err, exit.ErrCodeReported) {
		return err
	}
	if len(t.Config.Functions) == 0 {
		return errors.Join(fmt.Errorf("nothing was written: drover runs none of the functions of %s; run: drover check %s", dir, dir), err)
	}
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // others may read a project
	if err != nil {
		return fmt.Errorf("writing the settings of the function app: %w", err)
	}
	_, err = out.Write(append([]byte("# yaml-language-server: $schema=./"+schemaFile+"\n"), functionapp.WriteBeside(t, term.Printable(report.String()))...))
	if err = errors.Join(err, out.Close(), writeSchema(dir)); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	fmt.Fprintf(c.Out, "Written: %s, and %s for editors\nIt changes nothing until you edit it. Then run: drover check %s\n", file, schemaFile, dir)
	return nil
}

// schemaFile is the file of the schema, which the first line of a drover.yaml names.
const schemaFile = "drover.schema.json"

// writeSchema writes the schema with which editors complete and check the drover.yaml. It keeps an existing
// file.
func writeSchema(dir string) error {
	schema, err := configs.OverlaySchema()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(filepath.Join(dir, schemaFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // others may read a project
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = out.Write(append(schema, '\n'))
	return errors.Join(err, out.Close())
}
