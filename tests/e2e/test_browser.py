"""The demo's promise, in a real browser: log in, spawn, JupyterLab, 1+1, stop."""

import json

import pytest
from devkit.child import wait_until
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

NAME = "notebook+browser@example.com"


def kernel_is_ready(hub):
    """Whether the user's server has one kernel, to which a websocket is open and which waits for work."""
    headers = {"Authorization": f"token {hub.token}"}
    status, body = hub.get(f"{hub.path(NAME)}api/kernels", headers=headers)
    assert status == 200, body
    kernels = json.loads(body)
    assert [(kernel["execution_state"], kernel["connections"]) for kernel in kernels] == [("idle", 1)], kernels
    return True


def is_stopped(hub, browser):
    """Whether the server's route is gone. Until then the button is clicked: it is there before its script is."""
    if f"/user/{NAME}" not in hub.routes():
        return True
    browser.click_now("#stop")
    return False


def work_in_jupyterlab(hub, browser):
    """Log in, work, stop."""
    browser.open(hub.stack.public_url)
    browser.log_in(NAME)
    # The hub spawns at once and leads to JupyterLab when its route is there.
    browser.wait_for_address("/user/notebook")
    card = '.jp-LauncherCard[data-category="Notebook"]'
    browser.find(card)
    browser.picture("jupyterlab")
    assert f"/user/{NAME}" in hub.routes()
    browser.click(card)
    browser.find(".jp-Notebook .jp-CodeCell .cm-content", clickable=True)
    # Code that is run before the kernel has said hello to this page would be dropped by JupyterLab.
    wait_until("the page is connected to an idle kernel", lambda: kernel_is_ready(hub), 60)
    browser.wait_for_text("#jp-bottom-panel, #jp-main-statusbar", "| Idle")
    browser.click(".jp-Notebook .jp-CodeCell .cm-content")
    ActionChains(browser.driver).send_keys("1+1").key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(
        Keys.SHIFT
    ).perform()
    browser.wait_for_text(".jp-OutputArea-output pre", "2")
    browser.picture("one-plus-one")
    browser.open(f"{hub.stack.public_url}/hub/home")
    wait_until("the button has an effect, and the route is gone", lambda: is_stopped(hub, browser), 30, (), 0.5)
    browser.find("#start:not([href*='user/'])")
    browser.picture("stopped")
    # Whoever comes to the old address now is led to the hub.
    browser.open(f"{hub.stack.public_url}{hub.path(NAME)}lab")
    browser.wait_for_address("/hub/")
    browser.picture("after-the-end")


@pytest.mark.parametrize("world", [6], ids=["hub6"], indirect=True)
def test_a_person_works_in_jupyterlab(hub, browser):
    work_in_jupyterlab(hub, browser)
