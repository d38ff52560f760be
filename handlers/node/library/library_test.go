package library

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drover-run/drover/triggers/sdktest"
)

// sources is handlers/node.
var sources = os.DirFS("..")

func TestVersions(t *testing.T) {
	for drover, want := range map[string]string{
		"v1.2.0": "1.2.0", "v1.2.0-rc.1": "1.2.0-rc.1", "v0.0.0-20260102030405-abcdef012345": "0.0.0-20260102030405-abcdef012345",
		"v1.2.0+dirty": "1.2.0", "(devel)": "0.0.0-dev", "unknown": "0.0.0-dev", "v1": "0.0.0-dev", "v1.2.0/../x": "0.0.0-dev",
	} {
		if got := packageVersion(drover); got != want {
			t.Errorf("%s: %s, want %s", drover, got, want)
		}
	}
}

// The same source and version produce the same bytes, and the package has every file that it needs.
func TestPackageContent(t *testing.T) {
	var packed [2][]byte
	for i := range packed {
		path, err := Write(sources, "v1.2.0", filepath.Join(t.TempDir(), "dist"))
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(path) != "drover-functions-1.2.0.tgz" {
			t.Errorf("it is written to %s", path)
		}
		if packed[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(packed[0], packed[1]) {
		t.Error("two packages of the same sources differ")
	}
	zipped, err := gzip.NewReader(bytes.NewReader(packed[0]))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for all := tar.NewReader(zipped); ; {
		head, err := all.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(all)
		if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimPrefix(head.Name, "package/")] = string(text)
	}
	var about struct {
		Name, Version, Main, Types string
		Exports                    map[string]map[string]string
	}
	if err := json.Unmarshal([]byte(found["package.json"]), &about); err != nil || about.Name != Name || about.Version != "1.2.0" {
		t.Errorf("%v: %s", err, found["package.json"])
	}
	named := []string{about.Main, about.Types}
	for _, of := range about.Exports {
		for _, path := range of {
			named = append(named, path)
		}
	}
	for _, path := range named {
		if _, there := found[strings.TrimPrefix(path, "./")]; !there {
			t.Errorf("package.json names %s, which is missing", path)
		}
	}
	if !slices.Equal(slices.Sorted(func(yield func(string) bool) {
		for name := range found {
			if !yield(name) {
				return
			}
		}
	}), slices.Sorted(slices.Values(append([]string{"README.md", "package.json"}, files...)))) {
		t.Errorf("it has %v", found)
	}
	if _, err := Write(os.DirFS(t.TempDir()), "v1.2.0", t.TempDir()); err == nil || !strings.Contains(err.Error(), "reading the sources: ") {
		t.Errorf("without sources: %v", err)
	}
}

// install installs the package under the name drover in a new directory, with npm.
func install(t *testing.T) (dir string) {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	dir = t.TempDir()
	path, err := Write(sources, "v1.2.0", dir)
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "package.json", `{"private": true}`)
	cmd := exec.CommandContext(t.Context(), "npm", "install", "--offline", "--no-audit", "--no-fund", "drover@file:"+path)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm install: %v\n%s", err, out)
	}
	return dir
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// CommonJS and ES modules use the installed package, and run functions like a worker.
func TestInstalledPackage(t *testing.T) {
	t.Parallel()
	dir := install(t)
	text, err := os.ReadFile(filepath.Join("testdata", "testing.test.js"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "testing.test.js", string(text))
	put(t, dir, "es.test.mjs", `
import assert from 'node:assert';
import { test } from 'node:test';
import drover, { Output, Reject } from 'drover';
import * as testing from 'drover/testing';
import { run } from 'drover/testing';
import { createRequire } from 'node:module';

test('ES modules', async () => {
  assert.equal(drover, createRequire(import.meta.url)('drover'));
  assert.equal((await run(async () => new Output({ a: 1 }))).body.a, 1);
  await assert.rejects(testing.run(async () => { throw new Reject('no'); }), Reject);
});
`)
	cmd := exec.CommandContext(t.Context(), "node", "--test")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("node --test: %v\n%s", err, out)
	}
}

// TypeScript accepts correct types and rejects wrong ones, with both ways of resolving modules. The
// first program is from docs/node.md.
func TestTypes(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/node.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(page), "```ts\n")
	example, _, found := strings.Cut(example, "```")
	if !found {
		t.Fatal("docs/node.md has no program in TypeScript")
	}
	dir := install(t)
	put(t, dir, "page.ts", example)
	put(t, dir, "types.ts", `
import { Outputs, Retry, Verdicts, type BatchHandler, type Context, type Handler, type Message } from 'drover';
import * as testing from 'drover/testing';

const orders = async (message: Message, context: Context) => new Outputs({ receipts: message.id }, context.remaining());
const archive = async (messages: Message[]) => new Verdicts(messages.map(() => new Retry('later', { after: 5 })));
export const handler: Handler = orders;
export const batch: BatchHandler = archive;

export async function right() {
  const message = testing.message({ id: 7 }, { correlationId: 'c', attributes: { a: ['x'] }, enqueued: new Date(), sequenceNumber: 5 });
  const outputs: Outputs = await testing.run(orders, message, { outputs: ['receipts'], timeout: 5 });
  const verdicts: Verdicts = await testing.run(archive, [message]);
  const number: number = await testing.run((m: Message) => m.attempt);
  const request = testing.request('POST', 'http://localhost/', { headers: new Headers(), params: { id: '7' } });
  await testing.run(orders, request, { context: testing.context('f', { sessionState: Buffer.of(1) }) });
  return [outputs, verdicts, number];
}

export async function wrong() {
  // @ts-expect-error an unknown property
  testing.message('', { correlation: 'c' });
  // @ts-expect-error the type of the result
  const text: string = await testing.run(orders, '');
  // @ts-expect-error no function
  await testing.run('orders', '');
  // @ts-expect-error no such parameter
  await testing.run((message: string) => message, '');
  return text;
}
`)
	for _, args := range [][]string{{"--module", "node16", "--moduleResolution", "node16"}, {"--module", "esnext", "--moduleResolution", "bundler"}} {
		if out, err := sdktest.TSC(t, dir, append(args, "page.ts", "types.ts")...); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}
