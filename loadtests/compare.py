"""The gateway beside its peers: `python -m loadtests.compare path | projects | routing | vllm`.

- `path`: what each costs on the way to an engine that answers at once;
- `projects`: what authentication, limits and the ledger add to that;
- `routing`: where each sends requests, with simulated engines in real time;
- `vllm`: real vLLM on the CPU, beside Ray Serve LLM.
"""

import typer

from loadtests.comparison import path, projects, routing, vllm

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.command("path")(path.main)
app.command("projects")(projects.main)
app.command("routing")(routing.main)
app.command("vllm")(vllm.main)

if __name__ == "__main__":
    app()
