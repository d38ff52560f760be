package node

import (
	"context"

	"github.com/drover-run/drover/handlers/interpreters"
)

const layoutCode = `const path = require('path'), program = require('fs').realpathSync(process.execPath), dir = path.dirname(program);
console.log(JSON.stringify({ executable: process.execPath, homes: [path.basename(dir) === 'bin' ? path.dirname(dir) : program], libraries: require('module').globalPaths }))`

// ReadLayout returns the paths of an interpreter's parts: the directory that Node.js was installed
// in, or the program alone.
func ReadLayout(ctx context.Context, i interpreters.Interpreter) (interpreters.Layout, error) {
	return i.ReadLayout(ctx, "-e", layoutCode)
}
