#!/bin/sh
# Fetch GraphiQL and React from the npm registry into graphiql/vendor/ and write SHA256SUMS anew.
# The same versions give the same bytes: `git diff` shows what a renewal changes, and nothing where none was meant.
set -eu

graphiql=4.1.2
react=18.3.1
built_by=2026-03-11 # the day after GraphiQL's release: packages newer than that are not in its bundle

here=$(cd "$(dirname "$0")" && pwd)
vendor=$here/graphiql/vendor
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# npm checks each archive against the registry's hash of it.
npm install --prefix "$work" --before "$built_by" --ignore-scripts --no-audit --no-fund --no-package-lock --silent \
    "graphiql@$graphiql" "react@$react" "react-dom@$react" graphql graphql-ws@5 \
    @fontsource/roboto @fontsource/fira-code

cd "$work/node_modules"
# Without its source map (4.7 MB), which Django's manifest storage would insist on finding.
sed '/^\/\/# sourceMappingURL=/d' graphiql/graphiql.min.js >"$vendor/graphiql.min.js"
cp graphiql/graphiql.min.css react/umd/react.production.min.js react-dom/umd/react-dom.production.min.js "$vendor/"
for package in graphiql react react-dom; do
    cp "$package/LICENSE" "$vendor/$package.LICENSE"
done
node "$here/bundled-licenses.mjs" . >"$vendor/graphiql.bundled.LICENSE"

cd "$vendor"
sha256sum -- *.js *.css *.LICENSE >SHA256SUMS
