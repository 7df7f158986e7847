// Who may import whom: DESIGN section 3. Checked by `npm test`.
const only = (name, from, to) => ({
  name,
  severity: "error",
  from: { path: from },
  to: { path: "^(client|server|functions|workloads|bench|proto|native|test|scripts)/", pathNot: to },
});

/** @type {import("dependency-cruiser").IConfiguration} */
module.exports = {
  forbidden: [
    only("the contract imports only itself and the addon's loader", "^proto/", "^(proto|native/binding)/"),
    only("the addon's face imports nothing", "^native/binding/", "^native/binding/"),
    only(
      "the client knows the contract and the addon, never the server",
      "^client/",
      "^(client|proto|native/binding)/",
    ),
    only(
      "the server knows the contract and the addon, never the client",
      "^server/(?!cli/)",
      "^(server|proto|native/binding)/",
    ),
    only("functions stand on the client alone", "^functions/", "^(functions|client)/"),
    only("workloads stand on the public API alone", "^workloads/", "^(workloads|client|functions)/"),
    {
      name: "only the command line composes",
      severity: "error",
      from: { path: "^(client|functions|workloads|proto|native|server/(?!cli/))" },
      to: { path: "^server/cli/" },
    },
    {
      name: "policy has no I/O",
      severity: "error",
      from: { path: "^server/(namespaces|shuffles)/" },
      to: {
        path: "^(node:)?(net|fs|http|http2|tls|dgram|child_process|worker_threads|timers)|@grpc/|pino",
        dependencyTypesNot: ["type-only"],
      },
    },
    {
      name: "policy does not know what records it",
      severity: "error",
      from: { path: "^server/(namespaces|shuffles)/" },
      to: { path: "^server/(state|engine|doors)/" },
    },
    {
      name: "state is files alone: no engine, no doors",
      severity: "error",
      from: { path: "^server/state/" },
      to: { path: "^server/(engine|doors)/" },
    },
    {
      name: "no cycles",
      severity: "error",
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    { name: "nothing unresolvable", severity: "error", from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    parser: "swc", // TypeScript 7 has no JavaScript API that dependency-cruiser could use
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      extensions: [".ts", ".js"],
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "default"],
    },
  },
};
