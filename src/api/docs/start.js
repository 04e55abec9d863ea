// Shows the document of this server. Keys that are typed in stay in this page and end with it.
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  validatorUrl: null,
  syntaxHighlight: { activated: true },
});
