#!/usr/bin/env python3
"""Facts of Go's side of the API that OpenAPI does not carry, read from the Kubernetes sources.

    go_fields.py KUBERNETES_DIR > crates/knarr-api/generated/go_fields.json

For each type and JSON field: `p` it is a pointer, `o` it is left out when empty, `z` when zero; then, where it cannot be
derived from the schema, the Go type that error messages name; after `@`, the embedded structs that JSON inlines.
The output decides which zero values an object shows and how type errors read.
"""
import json, os, re, sys

ROOT = sys.argv[1] + "/staging/src/k8s.io"
SOURCES = [("io.k8s.api", "api", 2), ("io.k8s.apimachinery.pkg.apis.meta", "apimachinery/pkg/apis/meta", 1),
           ("io.k8s.apimachinery.pkg.version", "apimachinery/pkg/version", 0),
           ("io.k8s.apimachinery.pkg.runtime", "apimachinery/pkg/runtime", 0),
           ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions", "apiextensions-apiserver/pkg/apis/apiextensions", 1),
           ("io.k8s.kube-aggregator.pkg.apis.apiregistration", "kube-aggregator/pkg/apis/apiregistration", 1)]
STRUCT = re.compile(r"^type (\w+) struct \{")
FIELD = re.compile(r'^\s+(?:(\w+)\s+)?([\w.\[\]*]+)\s+`.*?json:"([^"]*)"')
PLAIN = {"string", "bool", "int32", "int64", "float64"}


def packages():
    for prefix, base, depth in SOURCES:
        for path, dirs, files in os.walk(f"{ROOT}/{base}"):
            rel = os.path.relpath(path, f"{ROOT}/{base}")
            parts = [] if rel == "." else rel.split("/")
            if len(parts) == depth:
                yield ".".join([prefix, *parts]), path, files
                dirs.clear()


def structs(path, files):
    out = {}
    for name in sorted(files):
        if not name.endswith(".go") or name.endswith("_test.go") or name.startswith(("zz_", "generated")):
            continue
        current = None
        for line in open(f"{path}/{name}"):
            if m := STRUCT.match(line):
                current = out.setdefault(m[1], [])
            elif line.startswith("}"):
                current = None
            elif current is not None and (m := FIELD.match(line)) and not line.strip().startswith("//"):
                current.append((m[1], m[2], m[3].split(",")))
    return out


def strip(go):
    return go.lstrip("*")


def derivable(go):
    base = go.replace("[]", "").replace("map[string]", "").lstrip("*")
    return base in PLAIN


def flatten(all_structs, package, fields, embedded=()):
    for name, go, tag in fields:
        options = tag[1:]
        if not tag[0] or "inline" in options:
            if tag[0] == "-" or strip(go).endswith("TypeMeta"):
                continue
            inner = all_structs.get(package, {}).get(strip(go))
            if inner:
                yield from flatten(all_structs, package, inner, (*embedded, strip(go)))
            continue
        if tag[0] == "-":
            continue
        flags = ("p" if go.startswith("*") else "") + ("o" if "omitempty" in options else "") + ("z" if "omitzero" in options else "")
        text = flags
        if not derivable(go):
            text += " " + go.lstrip("*")
        if embedded:
            text += " @" + ".".join(embedded)
        yield tag[0], text


all_structs = {package: structs(path, files) for package, path, files in packages()}
rows = {f"{p}.{name}": dict(flatten(all_structs, p, fields)) for p, ss in all_structs.items() for name, fields in ss.items()}
known = json.load(open(sys.argv[2]))["types"]
kept = {k: v for k, v in rows.items() if k in known and v}
print("{\n" + ",\n".join(f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in sorted(kept.items())) + "\n}")
missing = [f"{k}.{f}" for k, t in known.items() for f in t.get("fields", {}) if f not in ("apiVersion", "kind") and f not in rows.get(k, {})]
print(len(kept), "types;", len(missing), "fields unknown", missing[:20], file=sys.stderr)
