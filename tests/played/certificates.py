"""A certificate that is renewed while the chart is played with TLS: who serves the new one, and when."""

import ssl
import subprocess
import time

PAUSE_SECONDS = 0.2


def pair(folder, name, number):
    """A fresh key and a certificate that signs itself, as the files of a Secret."""
    key, certificate = folder / "tls.key", folder / "tls.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "30", "-subj", f"/CN={name}", "-set_serial", str(number),
         "-addext", f"subjectAltName=DNS:{name}"],
        check=True, capture_output=True,
    )  # fmt: skip
    return {"tls.crt": certificate.read_bytes(), "tls.key": key.read_bytes()}


def served(addresses):
    """The certificates that these addresses show."""
    return [ssl.get_server_certificate(address, timeout=5).strip() for address in addresses]


def wait_until_served(addresses, certificate, seconds=90):
    """Wait until all show this one, and give the seconds that it took."""
    began = time.monotonic()
    wanted = certificate.decode().strip()
    while True:
        shown = served(addresses)
        if all(each == wanted for each in shown):
            return time.monotonic() - began
        if time.monotonic() - began > seconds:
            count = sum(each == wanted for each in shown)
            raise TimeoutError(f"{count} of {len(shown)} serve the renewed certificate after {seconds} s")
        time.sleep(PAUSE_SECONDS)
