/** in-toto's own definitions of statements and of SLSA provenance, and protobuf's own reader, out of Debian packages. */
import { type CommandResult, runCommand } from "../../lab/command.ts";
import { lab } from "../../lab/lab.ts";

const packages = [
  "golang-github-in-toto-attestation-dev",
  "libprotobuf-dev",
  "protobuf-compiler",
  "python3-protobuf",
];

const folder = "/usr/share/gocode/src/github.com/in-toto/attestation/protos";

/** Unknown fields and wrong types are errors; what was read and is written again has to be the same. */
const reader = `
import json, sys
from google.protobuf.json_format import MessageToDict, ParseDict
from in_toto_attestation.v1.statement_pb2 import Statement
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
statement = json.load(sys.stdin)
for message, value in (Statement(), statement), (Provenance(), statement["predicate"]):
    if MessageToDict(ParseDict(value, message)) != value:
        sys.exit(f"read as {message}")
`;

const script = `
cd ${folder}
protoc -I . -I /usr/include --python_out=/tmp in_toto_attestation/v1/*.proto in_toto_attestation/predicates/provenance/v1/*.proto
PYTHONPATH=/tmp exec python3 -c "$0"`;

/** Reads a statement by these definitions. @returns code 0 if it is one with SLSA provenance, else why not on stderr */
export async function readStatement(json: string): Promise<CommandResult> {
  const system = await lab.system("in-toto", packages);
  const enter = 'mount -t tmpfs tmpfs "$0/tmp" && exec chroot "$@"';
  const argv = ["unshare", "--mount", "sh", "-c", enter, system, system, "bash", "-euc", script, reader];
  return runCommand(argv, { input: json });
}
