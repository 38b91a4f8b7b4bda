#!/usr/bin/env python3
"""How upstream's server keeps objects in memory, read from the Kubernetes sources: its messages show parts of objects so.

    internal_types.py KUBERNETES_DIR > crates/knarr-api/generated/internal.txt

One type a line, its fields in Go's order; aliases of types are resolved. The first lines of the output say how to read it.
"""
import glob, re, sys

ROOT = sys.argv[1]
SOURCES = {"apiregistration": "staging/src/k8s.io/kube-aggregator/pkg/apis/apiregistration/types.go",
           "apiextensions": "staging/src/k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/types*.go"}
GROUPS = ["core", "apps", "batch", "autoscaling", "policy", "networking", "resource", "authorization", "admissionregistration",
          "flowcontrol", "storage", "rbac", "discovery", "certificates", "node", "scheduling", "coordination", "authentication"]
SOURCES.update({group: f"pkg/apis/{group}/types*.go" for group in GROUPS})
PLAIN = {"string", "bool", "int", "int8", "int16", "int32", "int64", "uint", "uint64", "float64", "byte", "rune", "any", "interface{}"}

# Where a field's name in JSON has other letters than in memory.
JSON_NAMES = {("resource.DeviceAttribute", go + end): json + end[5:] for go, json in
              [("Int", "int"), ("Bool", "bool"), ("String", "string"), ("Version", "version")] for end in ["Value", "Values"]}
for kind in ["core.ISCSIVolumeSource", "core.ISCSIPersistentVolumeSource"]:
    JSON_NAMES |= {(kind, "DiscoveryCHAPAuth"): "chapAuthDiscovery", (kind, "SessionCHAPAuth"): "chapAuthSession"}
for kind in ["core.GlusterfsVolumeSource", "core.GlusterfsPersistentVolumeSource"]:
    JSON_NAMES[kind, "EndpointsName"] = "endpoints"
for kind in ["core.RBDVolumeSource", "core.RBDPersistentVolumeSource"]:
    JSON_NAMES |= {(kind, "CephMonitors"): "monitors", (kind, "RBDImage"): "image", (kind, "RBDPool"): "pool", (kind, "RadosUser"): "user"}
JSON_NAMES |= {("core.AzureDiskVolumeSource", "DataDiskURI"): "diskURI", ("core.ContainerStatus", "LastTerminationState"): "lastState",
               ("core.Event", "ReportingController"): "reportingComponent"}
SCHEMA = "apiextensions.JSONSchemaProps"
JSON_NAMES |= {(SCHEMA, "Schema"): "$schema", (SCHEMA, "Ref"): "$ref"}


def json_name(kind, name):
    if kind == SCHEMA and re.match("X[A-Z]", name):
        return "x-kubernetes" + re.sub("([A-Z])", lambda m: "-" + m[1].lower(), name[1:])
    return JSON_NAMES.get((kind, name))


# The types of meta/v1 are the same in memory, tags and all.
META = [
    "meta.LabelSelector ~matchLabels:map:string ~matchExpressions:[]meta.LabelSelectorRequirement",
    "meta.LabelSelectorRequirement key:string operator:string ~values:[]string",
    "meta.FieldSelectorRequirement key:string operator:string ~values:[]string",
    "meta.Condition type:string status:string ~observedGeneration:int64 lastTransitionTime:meta.Time reason:string message:string",
    "meta.OwnerReference apiVersion:string kind:string name:string uid:string ~controller:*bool ~blockOwnerDeletion:*bool",
    "meta.ObjectMeta ~name:string ~generateName:string ~namespace:string ~selfLink:string ~uid:string ~resourceVersion:string "
    "~generation:int64 ~creationTimestamp:meta.Time ~deletionTimestamp:meta.Time ~deletionGracePeriodSeconds:int64 "
    "~labels:map:string ~annotations:map:string ~ownerReferences:[]meta.OwnerReference ~finalizers:[]string ~managedFields:[]any",
]

HEAD = """\
# How upstream's server keeps objects in memory, which is how its messages show parts of them: `type Field:type …`, in order.
# `+type` is embedded; `Field=name` is called `name` in JSON; `~field` is left out where it is not set. Read by `src/internal`.
# Made by xtask/scripts/internal_types.py."""


def without_comments(text):
    return re.sub(r"//[^\n]*", "", re.sub(r"/\*.*?\*/", "", text, flags=re.S))


def imports(text):
    found = re.finditer(r'(?:(\w+)\s+)?"([^"]+)"', text[:text.find("type ")])
    return {m[1] or m[2].split("/")[-1]: m[2] for m in found}


def qualified(go, group, imported):
    go = go.strip()
    if go.startswith("*"):
        return "*" + qualified(go[1:], group, imported)
    if go.startswith("[]"):
        return "[]" + qualified(go[2:], group, imported)
    if m := re.match(r"map\[[^\]]+\](.+)", go):
        return "map:" + qualified(m[1], group, imported)
    if "." not in go:
        return go if go in PLAIN else f"{group}.{go}"
    package, name = go.split(".")
    path = imported.get(package, package)
    if m := re.search(r"kubernetes/pkg/apis/(\w+)$", path):
        return f"{m[1]}.{name}"
    if path.endswith("api/core/v1"):
        return f"v1.{name}"
    return path.split("/")[-2 if path.endswith("/v1") else -1] + "." + name


def fields(body, group, imported):
    for line in body.split("\n"):
        words = re.sub(r"`[^`]*`", "", line).strip().split(None, 1)
        if len(words) == 1:
            yield "", qualified(words[0], group, imported)
        elif words:
            for name in words[0].split(","):
                yield name, qualified(words[1], group, imported)


def read():
    structs, aliases = {}, {}
    for group, pattern in SOURCES.items():
        for path in glob.glob(f"{ROOT}/{pattern}"):
            text = without_comments(open(path).read())
            imported = imports(text)
            for m in re.finditer(r"^type (\w+) struct \{\n(.*?)^\}", text, re.S | re.M):
                structs[f"{group}.{m[1]}"] = list(fields(m[2], group, imported))
            for m in re.finditer(r"^type (\w+) ([^\s{][^\n{]*)$", text, re.M):
                aliases[f"{group}.{m[1]}"] = qualified(m[2], group, imported)
    return structs, aliases


def resolved(go, aliases):
    for prefix in ["*", "[]", "map:"]:
        if go.startswith(prefix):
            return prefix + resolved(go[len(prefix):], aliases)
    return resolved(aliases[go], aliases) if go in aliases else go


def is_shown(kind, members):
    """Whole objects, lists of them and options are shown by no message."""
    whole = any(not name and go == "meta.TypeMeta" for name, go in members)
    return not whole and not kind.endswith("List")


structs, aliases = read()
rows = list(META)
for kind, members in structs.items():
    if is_shown(kind, members):
        words = [kind]
        for name, go in members:
            json = json_name(kind, name)
            go = resolved(go, aliases)
            words.append(f"{name}{'=' + json if json else ''}:{go}" if name else f"+{go}")
        rows.append(" ".join(words))
print(HEAD, *sorted(rows), sep="\n")
