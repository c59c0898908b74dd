/** The HTTP listeners of the configuration. */
import type { Config } from "../../config/config.ts";
import { endpointText } from "../../config/endpoint.ts";
import type { Log } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import { bearerToken, type HttpListener, type HttpSite, type Route, sameToken, serveHttp } from "./http.ts";
import { readToken } from "./token-file.ts";

export interface SiteSources {
  readonly metrics: Metrics;
  readonly log: Log;
}

/** @throws TokenError, HttpError, ListenError */
export async function openSites(config: Config, { metrics, log }: SiteSources): Promise<HttpListener[]> {
  const { listen, tokenFile } = config.metrics;
  if (!listen) return [];
  const listener = await serveHttp(
    listen,
    metricsSite(metrics, tokenFile === undefined ? undefined : readToken(tokenFile)),
    (error) => log.error({ error: error.message }, "cannot answer a request for metrics"),
  );
  log.info({ at: endpointText(listener.endpoint) }, "serving metrics");
  return [listener];
}

/** @param token what a scraper must send; undefined where the mode of the socket protects it */
export function metricsSite(metrics: Metrics, token: string | undefined): HttpSite {
  return {
    routes: new Map([["/metrics", metricsRoute(metrics)]]),
    authorized: (request) => token === undefined || sameToken(bearerToken(request), token),
  };
}

/** All metrics in Prometheus' text format. */
export function metricsRoute(metrics: Metrics): Route {
  return {
    async handle(_request, response) {
      const text = await metrics.text();
      response.setHeader("Content-Type", metrics.contentType);
      response.end(text);
    },
  };
}
