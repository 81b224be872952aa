"""A web server that others wrote, as the service behind the gateway: it answers everything, and writes each request
line it understood into a log.

Arguments: the server's name, and for `node` its program and script. Prints `log PATH` and `port N`; ends with its
standard input.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

kind, rest = sys.argv[1], sys.argv[2:]
home = tempfile.mkdtemp(prefix="origin-")
log = os.path.join(home, "access")
os.mkdir(os.path.join(home, "www"))
open(log, "w").close()
for directory in (home, os.path.join(home, "www")):
    os.chmod(directory, 0o755)
os.chmod(log, 0o666)
with socket.create_server(("127.0.0.1", 0)) as probe:
    port = probe.getsockname()[1]


def config(text):
    path = os.path.join(home, "config")
    with open(path, "w") as file:
        file.write(text.replace("HOME", home).replace("PORT", str(port)).replace("LOG", log))
    return path


def program(name):
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if not found:
        sys.exit(f"{name} is not there: `make peers` installs it")
    return found


WSGI = """
def app(environ, start_response):
    environ["wsgi.input"].read()
    query = environ.get("QUERY_STRING", "")
    with open(LOGPATH, "a") as file:
        file.write(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{query}\\n")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""


def wsgi():
    with open(os.path.join(home, "service.py"), "w") as file:
        file.write(WSGI.replace("LOGPATH", repr(log)))


if kind == "nginx":
    user = "user root;" if os.geteuid() == 0 else ""
    text = """
daemon off; pid HOME/pid; error_log HOME/error;
events {}
http {
    log_format line '$request'; access_log LOG line; client_body_temp_path HOME/body;
    proxy_temp_path HOME/1; fastcgi_temp_path HOME/2; uwsgi_temp_path HOME/3; scgi_temp_path HOME/4;
    server { listen 127.0.0.1:PORT; location / { return 200 ok; } }
}
"""
    command = [program("nginx"), "-e", os.path.join(home, "error"), "-c", config(user + text)]
elif kind == "apache2":
    who = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
    text = """
ServerRoot "HOME"
ServerName localhost
PidFile "HOME/pid"
Listen 127.0.0.1:PORT
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
DocumentRoot "HOME/www"
ErrorLog "HOME/error"
LogFormat "%r" line
CustomLog "LOG" line
"""
    command = [program("apache2"), "-DFOREGROUND", "-f", config(who + text)]
elif kind == "lighttpd":
    text = """
server.modules = ( "mod_accesslog" )
server.bind = "127.0.0.1"
server.port = PORT
server.document-root = "HOME/www"
server.errorlog = "HOME/error"
accesslog.filename = "LOG"
accesslog.format = "%r"
"""
    command = [program("lighttpd"), "-D", "-f", config(text)]
elif kind == "haproxy":
    text = """
global
    log stdout format raw local0
defaults
    mode http
    log global
    log-format %r
    option dontlognull
    timeout client 30s
    timeout server 30s
    timeout connect 5s
    timeout http-request 30s
frontend service
    bind 127.0.0.1:PORT
    http-request wait-for-body time 5s if METH_POST
    http-request return status 200 content-type text/plain string ok
"""
    command = [program("haproxy"), "-db", "-f", config(text)]
elif kind == "gunicorn":
    wsgi()
    command = [sys.executable, "-m", "gunicorn", "--chdir", home, "--bind", f"127.0.0.1:{port}", "--keep-alive", "5"]
    command += ["--worker-class", "gthread", "--threads", "4", "--log-level", "error", "service:app"]
elif kind == "waitress":
    wsgi()
    command = [sys.executable, "-m", "waitress", f"--listen=127.0.0.1:{port}", "service:app"]
elif kind == "node":
    command = [*rest, str(port), log]
else:
    sys.exit(f"{kind} is no server this script knows")

out = open(log if kind == "haproxy" else os.devnull, "a")
server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=open(os.path.join(home, "said"), "w"),
                          cwd=home)


def end(code):
    server.terminate()
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.kill()
    shutil.rmtree(home, ignore_errors=True)
    os._exit(code)


def ends_with_starter():
    sys.stdin.read()
    end(0)


threading.Thread(target=ends_with_starter, daemon=True).start()
for _ in range(600):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        break
    except OSError:
        if server.poll() is not None:
            print(open(os.path.join(home, "said")).read(), flush=True)
            end(1)
        time.sleep(0.05)
print(f"log {log}", flush=True)
print(f"port {port}", flush=True)
server.wait()
end(1)
