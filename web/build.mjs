// Builds the portal's scripts, styles and icons into static/build/.
//
// File names carry a hash of their content, so browsers may keep them for ever; manifest.json maps
// the plain names to the hashed ones and is what the template tag `asset` reads. Icons are taken from
// the one kept set (lucide) by the names in assets/icons.txt and stored as SVG bodies in icons.json,
// which the template tag `icon` writes into the page: no request, no flash, no inline style.
import { context, build } from "esbuild";
import { mkdir, readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(fileURLToPath(import.meta.url));
const out = join(root, "static", "build");

/** Write a file so that a reader sees the old one or the new one, never half of it. */
async function replace(path, text) {
  await writeFile(`${path}.new`, text);
  await rename(`${path}.new`, path);
}

async function icons() {
  const names = (await readFile(join(root, "assets", "icons.txt"), "utf8"))
    .split("\n")
    .map((line) => line.replace(/#.*/, "").trim())
    .filter(Boolean);
  const bodies = {};
  for (const name of names) {
    const svg = await readFile(join(root, "node_modules", "lucide-static", "icons", `${name}.svg`), "utf8");
    bodies[name] = svg
      .replace(/<!--.*?-->/gs, "")
      .replace(/^.*?<svg[^>]*>/s, "")
      .replace(/<\/svg>\s*$/, "")
      .replace(/\s+/g, " ")
      .replace(/ \/>/g, "/>")
      .trim();
  }
  await replace(join(out, "icons.json"), JSON.stringify(bodies));
}

/** After each build: write the manifest, then drop files that nothing refers to any more. */
const manifest = {
  name: "manifest",
  setup(setup) {
    setup.onEnd(async (result) => {
      if (result.errors.length || !result.metafile) return;
      const names = {};
      const kept = new Set(["manifest.json", "icons.json"]);
      for (const [path, output] of Object.entries(result.metafile.outputs)) {
        const file = basename(path);
        kept.add(file);
        // The server sends the compressed file where a browser takes it.
        await writeFile(join(out, `${file}.gz`), gzipSync(await readFile(join(out, file)), { level: 9 }));
        kept.add(`${file}.gz`);
        if (!output.entryPoint) continue;
        names[basename(output.entryPoint).replace(/\.ts$/, ".js")] = file;
      }
      await replace(join(out, "manifest.json"), JSON.stringify(names, null, 1));
      for (const file of await readdir(out)) if (!kept.has(file)) await rm(join(out, file));
    });
  },
};

const options = {
  absWorkingDir: root,
  entryPoints: [
    "assets/css/app.css",
    "assets/ts/app.ts",
    "assets/ts/cell.ts",
    "assets/ts/log.ts",
    "assets/ts/configuration.ts",
  ],
  outdir: out,
  entryNames: "[name]-[hash]",
  chunkNames: "chunk-[hash]",
  bundle: true,
  splitting: true,
  format: "esm",
  target: ["es2022"],
  minify: true,
  sourcemap: false,
  metafile: true,
  legalComments: "none",
  logLevel: "info",
  plugins: [manifest],
};

await mkdir(out, { recursive: true });
await icons();
if (process.argv.includes("--watch")) {
  await (await context(options)).watch();
} else {
  await build(options);
}
