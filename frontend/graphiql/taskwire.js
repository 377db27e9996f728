'use strict';

const inAWeek = new Date(Date.now() + 7 * 24 * 3600 * 1000).toISOString();

const TOUR = `# Welcome to Taskwire.
#
# Put the cursor into an operation and press
# Ctrl-Enter. Ctrl-Space completes; the book on the
# left opens the schema.

# Read projects and tasks. "cursor" is the position of
# this result: "events(after:)" continues from there.
query Projects {
  projects(first: 3) {
    nodes {
      id
      name
      tasks(first: 3) {
        nodes {
          id
          title
          status
          dueDate
        }
      }
    }
  }
  cursor
}

# A mutation returns the object, or the messages
# that explain why it failed.
mutation CreateProject {
  createProject(input: { name: "My first project" }) {
    ... on Project {
      id
      name
    }
    ... on OperationInfo {
      messages {
        kind
        field
        message
        code
      }
    }
  }
}

mutation CreateTask {
  createTask(
    input: {
      projectId: "1"
      title: "Take the tour"
      dueDate: "${inAWeek}"
    }
  ) {
    ... on Task {
      id
      title
      version
    }
    ... on OperationInfo {
      messages {
        kind
        field
        message
        code
      }
    }
  }
}

# Receive every change as it happens: start this
# one, then run the two above in a second window.
subscription Live {
  events {
    __typename
    cursor
    kind
    at
    ... on TaskCreated {
      task {
        id
        title
      }
    }
    ... on TaskUpdated {
      changes
      task {
        id
        status
      }
    }
  }
}
`;

/** `fetch` with Django's CSRF token, read for each request: a sign-in, even in another tab, changes it. */
function fetchWithCsrf(url, init) {
  const headers = new Headers(init.headers);
  const token = document.cookie.match(/(?:^|; )csrftoken=([^;]*)/)?.[1];
  if (token) {
    headers.set('X-CSRFToken', token);
  }
  return fetch(url, { ...init, headers });
}

const socketUrl = new URL('/graphql/', location);
socketUrl.protocol = location.protocol.replace('http', 'ws');

const fetcher = GraphiQL.createFetcher({
  url: location.pathname,
  subscriptionUrl: socketUrl.href,
  headers: { Accept: 'application/graphql-response+json, application/json' },
  enableIncrementalDelivery: false, // it would override the Accept header
  fetch: fetchWithCsrf,
});

const element = React.createElement;

ReactDOM.createRoot(document.getElementById('graphiql')).render(
  element(
    GraphiQL,
    { fetcher, defaultQuery: TOUR },
    element(
      GraphiQL.Logo,
      null,
      element('a', { className: 'taskwire-logo', href: '/accounts/sign-in/', title: 'Your account' }, 'Taskwire'),
    ),
  ),
);
