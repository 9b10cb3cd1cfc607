"""What the mixin declares of JupyterHub's spawners, compared with the installed JupyterHub's."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from jupyterhub import orm
from jupyterhub.objects import Server
from jupyterhub.spawner import LocalProcessSpawner, Spawner
from jupyterhub.tests.test_api import add_user

from jupyterhub_migspawner.spawner import protocols
from jupyterhub_migspawner.spawner.launchers.local import MigSimpleSpawner


def declared() -> list[ast.stmt]:
    """What the class declares for type checks, which it does not have at run time."""
    tree = ast.parse(inspect.getsource(protocols))
    (block,) = (each for each in tree.body if isinstance(each, ast.If))
    (found,) = (each for each in block.body if isinstance(each, ast.ClassDef))
    return [each for each in found.body if not isinstance(each, ast.Expr)]


def names_of(protocol: type) -> list[str]:
    own = [*getattr(protocol, "__annotations__", {}), *vars(protocol)]
    return [name for name in own if not name.startswith("_")]


ATTRIBUTES = [
    each.target.id
    for each in declared()
    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
]
FUNCTIONS = [
    each for each in declared() if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
]
PROPERTIES = [each.name for each in FUNCTIONS if each.decorator_list]
METHODS = [each for each in FUNCTIONS if not each.decorator_list]


@pytest.mark.parametrize("name", [*ATTRIBUTES, *PROPERTIES])
def test_spawners_have_every_attribute_that_is_declared(name: str) -> None:
    assert hasattr(Spawner, name)
    assert not callable(getattr(Spawner, name))


@pytest.mark.parametrize("method", METHODS, ids=lambda each: each.name)
def test_spawners_have_every_method_that_is_declared(method: ast.FunctionDef) -> None:
    theirs: Callable[..., Any] = getattr(Spawner, method.name)
    assert list(inspect.signature(theirs).parameters) == [each.arg for each in method.args.args]
    # A plain function may return an awaitable as well; one that is declared as a coroutine may not
    # return anything else.
    if isinstance(method, ast.AsyncFunctionDef):
        assert inspect.iscoroutinefunction(theirs)
    assert inspect.isasyncgenfunction(theirs) == (method.name == "progress")


async def test_the_hub_s_objects_have_what_is_declared(app: Any) -> None:
    user = add_user(app.db, app=app, name="ada")
    group = orm.Group(name="vision")
    rows = {
        protocols.HubUser: user,
        protocols.HubGroup: group,
        protocols.SavedServer: user.spawners[""].orm_spawner,
        protocols.ServerAddress: Server(),
    }
    for protocol, row in rows.items():
        names = names_of(protocol)
        assert names
        assert [name for name in names if not hasattr(row, name)] == []


def test_what_is_declared_hides_nothing_of_a_spawner() -> None:
    assert names_of(protocols.HubSpawner) == []
    assert MigSimpleSpawner.stop is LocalProcessSpawner.stop
    for name in {*ATTRIBUTES, *PROPERTIES} - {"name", "_log_name"}:
        assert getattr(MigSimpleSpawner, name) is getattr(Spawner, name), name
