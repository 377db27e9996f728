// Usage: node bundled-licenses.mjs NODE_MODULES
// Print the licenses of the packages in GraphiQL's bundle, which its source map names. Equal texts are printed once.
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const [modules] = process.argv.slice(2);
const FONTS = ['@fontsource/fira-code', '@fontsource/roboto']; // bundled in the style sheet, which has no source map

const readJson = (...path) => JSON.parse(readFileSync(join(modules, ...path), 'utf8'));

/** '.../node_modules/@scope/name/a.js' -> '@scope/name'; '../../graphiql-react/a.js' -> '@graphiql/react'. */
function packageOf(source) {
  const [first, second] = source
    .replace(/^\.\.\/src\//, 'graphiql/')
    .replace(/^(\.\.\/)+(?!node_modules)/, '')
    .split('node_modules/')
    .pop()
    .split('/');
  return first.startsWith('@') ? `${first}/${second}` : first.replace(/^graphiql-/, '@graphiql/');
}

function licenseOf(name) {
  const file = readdirSync(join(modules, name)).find((entry) => /^licen[cs]e/i.test(entry));
  return file
    ? readFileSync(join(modules, name, file), 'utf8').replace(/[ \t\r]+$/gm, '').trim()
    : `${readJson(name, 'package.json').license} (its package.json says so; it ships no text)`;
}

const names = new Set([...readJson('graphiql/graphiql.min.js.map').sources.map(packageOf), ...FONTS]);
const namesByText = new Map();
for (const name of [...names].sort()) {
  const text = licenseOf(name);
  namesByText.set(text, [...(namesByText.get(text) ?? []), name]);
}
for (const [text, users] of namesByText) {
  console.log(`${users.join(', ')}\n\n${text}\n\n${'-'.repeat(80)}\n`);
}
