// Checks custom resources (a JSON list on stdin) against the schemas that KEDA and the Prometheus operator publish.
//
//   node custom_resources.mjs NODE_DIRECTORY
//
// The schemas admit keys they do not know, as the API server does, which drops them: a misspelt setting would be silently
// lost. So the values are handed over as proxies that note what the validator asks for; what it never asks for is unknown.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const model = async ({ apiVersion, kind }) => {
  const [group, version] = apiVersion.split("/");
  const name = group === "keda.sh" ? "keda" : "prometheus-operator";
  const file = `${process.argv[2]}/node_modules/@kubernetes-models/${name}/${group}/${version}/${kind}.js`;
  return (await import(pathToFileURL(file)))[kind];
};

const watched = (value, path, asked) =>
  value === null || typeof value !== "object"
    ? value
    : new Proxy(value, {
        get(target, key) {
          if (typeof key !== "symbol" && Object.hasOwn(target, key)) {
            asked.add(`${path}/${key}`);
            return watched(target[key], `${path}/${key}`, asked);
          }
          return target[key];
        },
      });

const paths = (value, path = "") =>
  value === null || typeof value !== "object"
    ? []
    : Object.entries(value).flatMap(([key, below]) => [`${path}/${key}`, ...paths(below, `${path}/${key}`)]);

const problems = [];
for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  const name = `${resource.kind}/${resource.metadata.name}`;
  const Model = await model(resource);
  try {
    new Model(resource).validate();
  } catch (error) {
    problems.push(`${name}: ${error.message}`);
    continue;
  }
  const asked = new Set();
  const probe = new Model({});
  Object.defineProperty(probe, "spec", { value: watched(resource.spec, "/spec", asked), enumerable: true });
  Object.defineProperty(probe, "metadata", { value: { name }, enumerable: true });
  probe.validate();
  for (const path of paths(resource.spec, "/spec")) {
    if (!asked.has(path)) problems.push(`${name}: ${path} is in no schema`);
  }
}
for (const problem of problems) console.error(`  ${problem}`);
process.exit(problems.length ? 1 : 0);
