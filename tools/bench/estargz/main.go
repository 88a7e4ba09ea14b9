// SPDX-License-Identifier: Apache-2.0

// estargz IN OUT: writes the layer IN, a tar as it is or compressed, as an eStargz layer to OUT, and prints what a manifest and
// a config have to say of it: {"tocDigest": "sha256:…", "diffID": "sha256:…"}.
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go build -o estargz .
//
// Needs Debian's golang-go and golang-github-containerd-stargz-snapshotter-dev.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/containerd/stargz-snapshotter/estargz"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: estargz IN OUT")
		os.Exit(2)
	}
	if err := convert(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "estargz: %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

func convert(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}

	layer, err := estargz.Build(io.NewSectionReader(in, 0, st.Size()))
	if err != nil {
		return err
	}
	defer layer.Close()

	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, layer); err != nil {
		return err
	}
	// A digest is known once everything has been read.
	if err := out.Close(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]string{
		"tocDigest": layer.TOCDigest().String(),
		"diffID":    layer.DiffID().String(),
	})
}
