"""A headless Chromium that keeps a picture of each station."""

import contextlib
import os

from selenium import webdriver
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions as seen
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE_SECONDS = 60


class Browser:
    """What a person does with a browser, in words of JupyterHub's and JupyterLab's pages."""

    def __init__(self, driver_path, folder):
        options = webdriver.ChromeOptions()
        for switch in (
            "--headless=new",
            "--window-size=1280,900",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-proxy-server",
        ):
            options.add_argument(switch)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # Chromium's sandbox refuses to work for root
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(driver_path)))
        self.folder = folder
        self.pictures = 0

    def picture(self, name):
        """Keep what is on the screen."""
        self.pictures += 1
        self.driver.save_screenshot(str(self.folder / f"{self.pictures}-{name}.png"))

    def find(self, selector, clickable=False):
        """Wait for an element that can be seen, or clicked, and give it."""
        condition = seen.element_to_be_clickable if clickable else seen.visibility_of_element_located
        try:
            return WebDriverWait(self.driver, PATIENCE_SECONDS).until(condition((By.CSS_SELECTOR, selector)))
        except TimeoutException:
            self.picture("waiting-in-vain")
            text = self.driver.find_element(By.TAG_NAME, "body").text[:500]
            raise AssertionError(f"No {selector} on {self.driver.current_url}. The page says: {text!r}") from None

    def click(self, selector):
        self.find(selector, clickable=True).click()

    def click_now(self, selector):
        """Click it if it can be clicked at this moment."""
        with contextlib.suppress(WebDriverException):
            self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def open(self, url):
        self.driver.get(url)

    def log_in(self, name):
        """Fill in the hub's form."""
        self.find("#username_input").send_keys(name)
        self.find("#password_input").send_keys("anything")
        self.picture("login")
        self.click("#login_submit")

    def wait_for_address(self, part):
        """Wait until the address shows this text."""
        try:
            WebDriverWait(self.driver, PATIENCE_SECONDS).until(seen.url_contains(part))
        except TimeoutException:
            self.picture("wrong-address")
            raise AssertionError(f"The address never showed {part}; it is {self.driver.current_url}") from None

    def wait_for_text(self, selector, text):
        """Wait until an element shows this text."""
        try:
            WebDriverWait(self.driver, PATIENCE_SECONDS).until(
                seen.text_to_be_present_in_element((By.CSS_SELECTOR, selector), text)
            )
        except TimeoutException:
            self.picture("wrong-text")
            raise AssertionError(f"{selector} never showed {text!r}") from None

    def close(self):
        self.driver.quit()
